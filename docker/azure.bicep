// The image of docker/serve.Dockerfile as an Azure Container App; its key stays in a Key Vault.
//   az deployment group create --resource-group RG --template-file docker/azure.bicep \
//     --parameters image=REGISTRY.azurecr.io/blackswan-serve:TAG registry=REGISTRY vault=VAULT
// The identity that is made here needs "AcrPull" on the registry and "Key Vault Secrets User" on the vault.

@description('The image, with its tag, in the registry')
param image string

@description('Name of the Azure Container Registry that holds it')
param registry string

@description('Name of the Key Vault that holds the secret blackswan-api-key')
param vault string

param location string = resourceGroup().location
param name string = 'blackswan'

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: name
  location: location
}

resource logs 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: name
  location: location
  properties: {
    sku: { name: 'PerGB2018' }
    retentionInDays: 30
  }
}

resource place 'Microsoft.App/managedEnvironments@2024-03-01' = {
  name: name
  location: location
  properties: {
    appLogsConfiguration: {
      destination: 'log-analytics'
      logAnalyticsConfiguration: {
        customerId: logs.properties.customerId
        sharedKey: logs.listKeys().primarySharedKey
      }
    }
  }
}

resource app 'Microsoft.App/containerApps@2024-03-01' = {
  name: name
  location: location
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identity.id}': {} }
  }
  properties: {
    managedEnvironmentId: place.id
    configuration: {
      ingress: { external: true, targetPort: 8000, transport: 'http', allowInsecure: false }
      registries: [
        { server: '${registry}.azurecr.io', identity: identity.id }
      ]
      secrets: [
        {
          name: 'api-key'
          keyVaultUrl: 'https://${vault}${az.environment().suffixes.keyvaultDns}/secrets/blackswan-api-key'
          identity: identity.id
        }
      ]
    }
    template: {
      containers: [
        {
          name: name
          image: image
          resources: { cpu: json('2.0'), memory: '4Gi' }
          env: [
            { name: 'BLACKSWAN_API_KEY', secretRef: 'api-key' } // pragma: allowlist secret
          ]
          probes: [
            { type: 'Startup', httpGet: { path: '/ready', port: 8000 }, periodSeconds: 2, failureThreshold: 30 }
            { type: 'Liveness', httpGet: { path: '/health', port: 8000 } }
            { type: 'Readiness', httpGet: { path: '/ready', port: 8000 } }
          ]
        }
      ]
      scale: { minReplicas: 0, maxReplicas: 3 }
    }
  }
}

output url string = 'https://${app.properties.configuration.ingress.fqdn}'
output identity string = identity.properties.principalId
